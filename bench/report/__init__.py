"""Results, their sums, pictures and comparisons."""
