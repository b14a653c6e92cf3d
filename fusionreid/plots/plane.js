// The planes of notebook 13, an anywidget: the same images, placed by one feature in each plane.
//
// A point is an image. Near the pointer stands its picture, and lines go to its nearest neighbours.
// The image under the pointer of one plane has a ring in the others.
// Mouse: drag a lasso; a click lets go of it. The wheel zooms. A drag with Shift, or with the
// middle or right button, moves the plane.
// Keys: the arrows move the pointer (with Shift far), Space sets a corner of the lasso, Enter
// closes it, Escape lets go of it. + and - zoom, 0 shows all, Alt or Ctrl with an arrow moves the
// plane.
// A picture file that is dropped on a plane goes to Python, as a message with its bytes.
//
// A "place" is where a point lies when all is shown, in pixels. A "spot" is where it is now.

const WIDTH = 540;
const HEIGHT = 480;
const EDGE = 16;
const NEAR = 8; // pixels from the pointer to the image that it points at
const CORNERS = 3; // pixels between two corners of a lasso
const STEP = 6; // pixels that a key moves
const FAR = 48;
const CLOSER = 1.25; // a step of the zoom
const CLOSEST = 40;
const WIDE = 32; // a picture in the sheet
const HIGH = 64;
const MAGNIFIED = 1.5; // the picture at the pointer
const SAME = "#009e73"; // the colours of right and wrong images in the list
const OTHER = "#d55e00";
const LARGEST = 10e6; // bytes of a file: Jupyter breaks off at more than ten million a message
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HELP =
  "All images in a plane. Arrows move, Space sets a corner of a lasso, Enter closes it, " +
  "Escape lets go of it. Plus and minus zoom, 0 shows all, Alt and an arrow moves the plane.";

const KEY = [
  ["■", "", "query"],
  ["●", "", "gallery image"],
  ["▣", "black", "the query and its list"],
  ["━", SAME, "to a near image of the same person"],
  ["━", OTHER, "of another one"],
];

const limit = (value, least, most) => Math.min(Math.max(value, least), most);
const distance = ([x, y], [right, down]) => Math.hypot(x - right, y - down);

// One plane on its canvas, and what part of it is shown.
class View {
  constructor(model, number) {
    this.model = model;
    this.number = number;
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d");
    this.read();
  }

  read() {
    const { title, points, neighbours } = this.model.get("planes")[this.number];
    if (title === this.title) return;
    this.title = title;
    this.canvas.setAttribute("aria-label", `${title}. ${HELP}`);
    this.neighbours = neighbours;
    this.places = points.map(([x, y]) => {
      if (x === null) return null; // left out of the plane
      return [EDGE + x * (WIDTH - 2 * EDGE), HEIGHT - EDGE - y * (HEIGHT - 2 * EDGE)];
    });
    this.showAll();
  }

  showAll() {
    this.scale = 1;
    this.left = 0;
    this.top = 0;
  }

  spot([x, y]) {
    return [this.left + this.scale * x, this.top + this.scale * y];
  }

  place([x, y]) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  // The place under the spot stays there.
  zoom(factor, [x, y]) {
    const scale = limit(this.scale * factor, 1, CLOSEST);
    const change = scale / this.scale;
    this.scale = scale;
    this.moveTo(x - (x - this.left) * change, y - (y - this.top) * change);
  }

  move(right, down) {
    this.moveTo(this.left + right, this.top + down);
  }

  // The plane fills the canvas, however it is moved.
  moveTo(left, top) {
    this.left = limit(left, WIDTH * (1 - this.scale), 0);
    this.top = limit(top, HEIGHT * (1 - this.scale), 0);
  }

  // The image at the spot, or null.
  nearest(spot) {
    let best = null;
    let least = NEAR;
    this.places.forEach((place, index) => {
      if (!place) return;
      const far = distance(this.spot(place), spot);
      if (far >= least) return;
      least = far;
      best = index;
    });
    return best;
  }

  outline(corners) {
    const path = new Path2D();
    for (const corner of corners) path.lineTo(...this.spot(corner));
    path.closePath();
    return path;
  }

  // The images inside the corners.
  inside(corners) {
    const path = this.outline(corners);
    this.pen.resetTransform();
    const isIn = (place) => place && this.pen.isPointInPath(path, ...this.spot(place));
    return [...this.places.keys()].filter((index) => isIn(this.places[index]));
  }

  wipe() {
    const ratio = window.devicePixelRatio;
    this.canvas.width = WIDTH * ratio; // which wipes it
    this.canvas.height = HEIGHT * ratio;
    this.canvas.dataset.view = [this.scale, this.left, this.top].join(" ");
    this.pen.scale(ratio, ratio);
    this.pen.font = "12px sans-serif";
  }

  drawTitle() {
    const zoomed = this.scale > 1 ? `, ${this.scale.toFixed(1)} times as large` : "";
    this.write(this.title + zoomed, 6, 16);
  }

  write(text, x, y) {
    const { width } = this.pen.measureText(text);
    this.pen.fillStyle = "#ffffffd0";
    this.pen.fillRect(x - 3, y - 13, width + 6, 17);
    this.pen.fillStyle = "black";
    this.pen.fillText(text, x, y);
    return width;
  }

  drawDot(index, frame, alpha) {
    if (!this.places[index]) return;
    const [x, y] = this.spot(this.places[index]);
    this.pen.beginPath();
    if (index < this.model.get("queries")) this.pen.rect(x - 3, y - 3, 6, 6);
    else this.pen.arc(x, y, 3.5, 0, 2 * Math.PI);
    this.pen.globalAlpha = alpha;
    this.pen.fillStyle = this.model.get("colours")[index];
    this.pen.fill();
    this.pen.globalAlpha = 1;
    this.pen.lineWidth = frame;
    this.pen.strokeStyle = "black";
    if (frame) this.pen.stroke();
  }

  // Lines from an image to its nearest neighbours in the space of the feature.
  drawNeighbours(index) {
    if (!this.places[index]) return;
    const people = this.model.get("people");
    for (const other of this.neighbours[index]) {
      const isSame = people[other] > 0 && people[other] === people[index];
      this.pen.beginPath();
      this.pen.moveTo(...this.spot(this.places[index]));
      this.pen.lineTo(...this.spot(this.places[other]));
      this.pen.lineWidth = 1.5;
      this.pen.strokeStyle = isSame ? SAME : OTHER;
      this.pen.stroke();
      this.drawDot(other, 0, 1);
    }
  }

  drawLasso(corners) {
    const path = this.outline(corners);
    this.pen.lineWidth = 1.5;
    this.pen.strokeStyle = "black";
    this.pen.fillStyle = "#0072b218";
    this.pen.fill(path);
    this.pen.stroke(path);
  }

  drawCross([x, y]) {
    this.pen.lineWidth = 1.5;
    this.pen.strokeStyle = "black";
    this.pen.stroke(new Path2D(`M${x} ${y} m-8 0 h16 m-8 -8 v16`));
  }

  drawRing(index) {
    if (!this.places[index]) return;
    const [x, y] = this.spot(this.places[index]);
    for (const [width, colour] of [[5, "white"], [2.5, "black"]]) {
      this.pen.beginPath();
      this.pen.arc(x, y, 9, 0, 2 * Math.PI);
      this.pen.lineWidth = width;
      this.pen.strokeStyle = colour;
      this.pen.stroke();
    }
    this.drawDot(index, 3, 1);
  }

  drawPicture(index, sheet) {
    const across = sheet.width / WIDE;
    const column = index % across;
    const row = Math.floor(index / across);
    const [x, y] = this.spot(this.places[index]);
    const width = MAGNIFIED * WIDE;
    const height = MAGNIFIED * HIGH;
    const left = x + width + 12 < WIDTH ? x + 12 : x - 12 - width;
    const top = limit(y - height / 2, 2, HEIGHT - height - 20);
    const caption = this.model.get("captions")[index];
    const half = this.pen.measureText(caption).width / 2;
    const middle = limit(left + width / 2, half + 4, WIDTH - half - 4);
    this.write(caption, middle - half, top + height + 13);
    this.pen.fillStyle = "white";
    this.pen.fillRect(left - 2, top - 2, width + 4, height + 4);
    this.pen.drawImage(sheet, column * WIDE, row * HIGH, WIDE, HIGH, left, top, width, height);
    this.drawDot(index, 3, 1);
  }
}

function span(text, style = "") {
  const element = document.createElement("span");
  element.textContent = text;
  element.style.cssText = style;
  return element;
}

// The names of the colours, each with a swatch; or a bar between the names of its two ends.
function fillLegend(legend, [names, colours]) {
  const box = "display: inline-block; height: 12px; vertical-align: middle; margin: 0 5px";
  if (colours.length > names.length) {
    const [low, high] = names;
    const bar = `linear-gradient(90deg, ${colours.join(", ")})`;
    legend.replaceChildren(
      span(low), span("", `${box}; width: 160px; background: ${bar}`), span(high));
    return;
  }
  const entries = names.map((name, index) => {
    const entry = span("", "display: inline-block; margin-right: 14px");
    const colour = colours[index];
    if (colour) entry.append(span("", `${box}; width: 12px; background: ${colour}`));
    entry.append(name);
    return entry;
  });
  legend.replaceChildren(...entries);
}

function key() {
  const line = document.createElement("div");
  for (const [sign, colour, text] of KEY) {
    const entry = span("", "margin-right: 14px");
    entry.append(span(sign, `color: ${colour || "grey"}; margin: 0 5px`), text);
    line.append(entry);
  }
  return line;
}

function render({ model, el }) {
  const sheet = new Image();
  const views = model.get("planes").map((_, number) => new View(model, number));
  let active = null; // the view that the pointer is in
  let pointer = null; // the spot of the mouse, or of the keys
  let corners = []; // of the lasso, as places of the view that it is drawn in
  let lassoed = null; // that view
  let drawing = false; // a lasso that is not closed yet
  let held = null; // the spot where the plane was taken to be moved

  function pointAt(view, spot) {
    active = view;
    pointer = spot;
  }

  function corner() {
    const place = active.place(pointer);
    if (!drawing || lassoed !== active) {
      corners = [place];
      lassoed = active;
    } else if (distance(active.spot(corners.at(-1)), pointer) > CORNERS) corners.push(place);
    drawing = true;
  }

  function close() {
    drawing = false;
    choose(corners.length < 3 ? null : lassoed.inside(corners));
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

  function draw() {
    const chosen = model.get("chosen");
    if (!chosen && !drawing) corners = [];
    const near = active ? active.nearest(pointer) : null;
    for (const view of views) drawView(view, new Set(chosen ?? view.places.keys()), near);
  }

  function drawView(view, inside, near) {
    const framed = model.get("framed");
    const query = framed.at(-1); // null for a picture of one's own
    const focused = document.activeElement === view.canvas;
    view.wipe();
    view.places.forEach((_, index) => view.drawDot(index, 0, inside.has(index) ? 1 : 0.15));
    view.drawNeighbours(near ?? query);
    for (const index of framed) view.drawDot(index, index === query ? 3 : 1, 1);
    if (view === lassoed) {
      const open = drawing && view === active;
      view.drawLasso(open ? [...corners, view.place(pointer)] : corners);
    }
    view.drawTitle();
    if (focused && view === active) view.drawCross(pointer);
    if (near !== null && view !== active) view.drawRing(near);
    if (near !== null && view === active && sheet.complete && !drawing) {
      view.drawPicture(near, sheet);
    }
    view.canvas.style.outline = focused ? "2px solid #0072b2" : "1px solid #ccc";
  }

  function listen(view) {
    const { canvas } = view;
    const spotOf = (event) => [event.offsetX, event.offsetY];

    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      pointAt(view, spotOf(event));
      drawing = false;
      held = null;
      if (event.button || event.shiftKey) held = pointer;
      else corner();
    };
    canvas.onpointermove = (event) => {
      pointAt(view, spotOf(event));
      if (held) {
        view.move(pointer[0] - held[0], pointer[1] - held[1]);
        held = pointer;
      } else if (event.buttons && drawing) corner();
      draw();
    };
    canvas.onpointerup = () => {
      if (held) held = null;
      else close();
    };
    canvas.onpointercancel = () => {
      held = null;
      release();
    };
    canvas.onpointerleave = () => {
      pointAt(null, null);
      draw();
    };
    canvas.onmousedown = (event) => event.preventDefault(); // else the middle button scrolls
    canvas.oncontextmenu = (event) => {
      event.preventDefault();
      event.stopPropagation(); // or JupyterLab opens its own
    };
    canvas.onwheel = (event) => {
      if (event.deltaY > 0 && view.scale === 1) return; // all is shown: the page scrolls on
      event.preventDefault();
      pointAt(view, spotOf(event));
      view.zoom(event.deltaY < 0 ? CLOSER : 1 / CLOSER, pointer);
      draw();
    };
    canvas.onkeydown = (event) => {
      if (active !== view) pointAt(view, [WIDTH / 2, HEIGHT / 2]);
      if (!press(view, event)) return;
      event.preventDefault();
      draw();
    };
    canvas.ondragover = (event) => event.preventDefault(); // or the browser opens the file
    canvas.ondrop = async (event) => {
      event.preventDefault();
      event.stopPropagation();
      const [file] = event.dataTransfer.files;
      if (!file) return; // text, or a part of a page
      const content = file.size > LARGEST ? [] : [await file.arrayBuffer()];
      model.send({ dropped: file.name }, undefined, content);
    };
    canvas.onfocus = draw;
    canvas.onblur = draw;
  }

  // Whether the key means something here.
  function press(view, { key, shiftKey, altKey, ctrlKey, metaKey }) {
    const moves = altKey || ctrlKey;
    if (key in ARROWS) {
      const [right, down] = ARROWS[key];
      if (moves) {
        view.move(-FAR * right, -FAR * down);
        return true;
      }
      const size = shiftKey ? FAR : STEP;
      const x = limit(pointer[0] + size * right, 0, WIDTH);
      const y = limit(pointer[1] + size * down, 0, HEIGHT);
      pointAt(view, [x, y]);
      return true;
    }
    if (moves || metaKey) return false; // the browser's own zoom
    if (key === "+" || key === "=") view.zoom(CLOSER, pointer);
    else if (key === "-") view.zoom(1 / CLOSER, pointer);
    else if (key === "0") view.showAll();
    else if (key === " ") corner();
    else if (key === "Enter" && drawing && view === lassoed) {
      corner();
      close();
    } else if (key === "Escape") release();
    else return false;
    return true;
  }

  function drawLegend() {
    fillLegend(legend, model.get("legend"));
  }

  function readAgain() {
    const before = lassoed?.title;
    for (const view of views) view.read();
    if (lassoed?.title !== before) corners = []; // what it chose stays
    draw();
  }

  const handlers = {
    "change:planes": readAgain,
    "change:colours": draw,
    "change:legend": drawLegend,
    "change:framed": draw,
    "change:chosen": draw,
  };
  for (const [name, handler] of Object.entries(handlers)) model.on(name, handler);
  const planes = document.createElement("div");
  const legend = document.createElement("div");
  planes.style.cssText = "display: flex; flex-wrap: wrap";
  legend.style.cssText = `max-width: ${2 * WIDTH}px; line-height: 1.5; margin: 0 4px`;
  legend.className = "plane-legend";
  for (const view of views) {
    const { canvas } = view;
    listen(view);
    canvas.tabIndex = 0;
    canvas.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes the arrows
    canvas.setAttribute("role", "application");
    canvas.style.cssText =
      `width: ${WIDTH}px; height: ${HEIGHT}px; margin: 4px; background: white; ` +
      "cursor: crosshair; touch-action: none";
    planes.append(canvas);
  }
  el.append(legend, planes, key());
  drawLegend();
  sheet.onload = draw;
  sheet.src = model.get("sheet");
  draw();
  return () => {
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
  };
}

export default { render };
