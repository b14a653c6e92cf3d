// The plane of notebook 13, an anywidget: a point for every image, its picture near the pointer, and a lasso.
// Mouse: drag a lasso; a click lets go of it. Keys: the arrows move the pointer (with Shift far), Space sets a corner,
// Enter closes the lasso, Escape lets go of it.

const WIDTH = 820, HEIGHT = 480, EDGE = 16; // pixels
const NEAR = 8, STEP = 6, FAR = 48, ZOOM = 1.5;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SEEN = ["hues", "framed", "chosen"].map((name) => `change:${name}`);

function render({ model, el }) {
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d"), sheet = new Image();
  const places = model.get("points").map(([x, y]) =>
    x === null ? null : [EDGE + x * (WIDTH - 2 * EDGE), HEIGHT - EDGE - y * (HEIGHT - 2 * EDGE)]);
  let pointer = null, corners = [], drawing = false; // the pointer is that of the mouse or of the keys

  function lasso() {
    const path = new Path2D();
    for (const [x, y] of drawing && pointer ? [...corners, pointer] : corners) path.lineTo(x, y);
    path.closePath();
    return path;
  }

  function corner() {
    if (!drawing) corners = [pointer];
    else if (away(corners.at(-1)) > 3) corners.push(pointer);
    drawing = true;
  }

  function close() {
    drawing = false;
    const path = lasso(), inside = ([x, y]) => pen.isPointInPath(path, x, y);
    pen.resetTransform();
    choose(corners.length < 3 ? null : [...places.keys()].filter((index) => places[index] && inside(places[index])));
  }

  function release() {
    drawing = false;
    choose(null);
  }

  function choose(indices) {
    model.set("chosen", indices);
    model.save_changes();
    draw();
  }

  function away(place) { // from the pointer, in pixels
    return place && pointer ? Math.hypot(place[0] - pointer[0], place[1] - pointer[1]) : Infinity;
  }

  function nearest() {
    const best = places.reduce((best, place, index) => (away(place) < away(places[best]) ? index : best), 0);
    return away(places[best]) < NEAR ? best : null;
  }

  function drawDot(index, frame, alpha) {
    if (!places[index]) return;
    const [x, y] = places[index];
    pen.beginPath();
    if (index < model.get("queries")) pen.rect(x - 3, y - 3, 6, 6);
    else pen.arc(x, y, 3.5, 0, 2 * Math.PI);
    pen.fillStyle = `hsl(${model.get("hues")[index]} 70% 45% / ${alpha})`;
    pen.fill();
    pen.lineWidth = frame;
    if (frame) pen.stroke();
  }

  function drawPicture(index) {
    const across = model.get("across"), wide = sheet.width / across, high = 2 * wide;
    const [x, y] = places[index], [w, h] = [ZOOM * wide, ZOOM * high];
    const left = x + w + 12 < WIDTH ? x + 12 : x - 12 - w, top = Math.min(Math.max(y - h / 2, 2), HEIGHT - h - 20);
    const text = model.get("captions")[index], length = pen.measureText(text).width;
    const start = Math.min(Math.max(left + w / 2 - length / 2, 4), WIDTH - length - 4);
    pen.fillStyle = "white";
    pen.fillRect(start - 3, top + h, length + 6, 17);
    pen.fillRect(left - 2, top - 2, w + 4, h + 4);
    pen.drawImage(sheet, (index % across) * wide, Math.floor(index / across) * high, wide, high, left, top, w, h);
    pen.fillStyle = "black";
    pen.fillText(text, start, top + h + 13);
    drawDot(index, 3, 1);
  }

  function draw() {
    const ratio = window.devicePixelRatio, framed = model.get("framed"), chosen = model.get("chosen");
    const inside = new Set(chosen ?? []), focused = document.activeElement === canvas, near = nearest();
    if (!chosen && !drawing) corners = [];
    [canvas.width, canvas.height] = [WIDTH * ratio, HEIGHT * ratio]; // which wipes it
    pen.scale(ratio, ratio);
    pen.font = "12px sans-serif";
    places.forEach((_, index) => drawDot(index, 0, !chosen || inside.has(index) ? 1 : 0.15));
    framed.forEach((index, order) => drawDot(index, order < framed.length - 1 ? 1 : 3, 1)); // the query is the last
    pen.lineWidth = 1.5;
    pen.fillStyle = "#0072b218";
    pen.fill(lasso());
    pen.stroke(lasso());
    if (focused && pointer) pen.stroke(new Path2D(`M${pointer} m-8 0 h16 m-8 -8 v16`));
    if (near !== null && sheet.complete && !drawing) drawPicture(near);
    canvas.style.outline = focused ? "2px solid #0072b2" : "1px solid #ccc";
  }

  canvas.onpointermove = (event) => {
    pointer = [event.offsetX, event.offsetY];
    if (event.buttons && drawing) corner();
    draw();
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    pointer = [event.offsetX, event.offsetY];
    drawing = false;
    corner();
  };
  canvas.onpointerup = close;
  canvas.onpointercancel = release;
  canvas.onpointerleave = () => {
    pointer = null;
    draw();
  };
  canvas.onkeydown = (event) => {
    pointer ??= [WIDTH / 2, HEIGHT / 2];
    if (event.key in ARROWS) {
      const size = event.shiftKey ? FAR : STEP, [right, down] = ARROWS[event.key];
      const limit = (value, most) => Math.min(Math.max(value, 0), most);
      pointer = [limit(pointer[0] + size * right, WIDTH), limit(pointer[1] + size * down, HEIGHT)];
    } else if (event.key === " ") corner();
    else if (event.key === "Enter" && drawing) (corner(), close());
    else if (event.key === "Escape") release();
    else return;
    event.preventDefault();
    draw();
  };
  canvas.onfocus = canvas.onblur = sheet.onload = draw;
  canvas.tabIndex = 0;
  canvas.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes the arrows
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label",
    "All images in a plane. Arrows move, Space sets a corner of a lasso, Enter closes it, Escape lets go of it.");
  canvas.style.cssText =
    `width: ${WIDTH}px; height: ${HEIGHT}px; margin: 4px; background: white; cursor: crosshair; touch-action: none`;
  sheet.src = model.get("sheet");
  SEEN.forEach((name) => model.on(name, draw));
  el.append(canvas);
  draw();
  return () => SEEN.forEach((name) => model.off(name, draw));
}

export default { render };
