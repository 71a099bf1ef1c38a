"""Load generator, scenarios, measurement and reports."""
