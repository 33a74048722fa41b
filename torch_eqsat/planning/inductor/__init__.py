"""What the backend arranges with Inductor beside its pass: freezing, its folds, its cache of compiled graphs."""
