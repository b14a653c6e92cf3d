"""The synthetic people: a sealed renderer.

Outside this folder, only `build`, what it writes and the version `RENDERER` are known.
"""

RENDERER = 6  # version of the synthetic people: raised whenever the same seed gives other pictures
