"""FX graphs to terms and back: capture, translation, lowering, rebuild."""
