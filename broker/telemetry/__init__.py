"""What the broker reports about itself."""
