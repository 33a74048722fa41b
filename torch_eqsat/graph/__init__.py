"""FX graphs to terms and back: capture, lowering, rebuild, judge. Speaks to torch; nothing below it does."""
