"""How fast compiled models are: a process per variant, a runner that asks them in turn, and the demo."""
