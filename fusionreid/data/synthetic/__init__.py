"""The synthetic people: a sealed renderer. Outside it, only `build` and what it writes are known."""
