"""Results: assembly, checks, plots, report and comparison."""
