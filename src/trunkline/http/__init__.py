"""HTTP listeners: health, readiness and metrics for operators."""
