"""The synthetic people: a sealed renderer. Outside it, only `build` and what it writes are known."""

RENDERER = 5  # version of the synthetic people: raised whenever the same seed gives other pictures
