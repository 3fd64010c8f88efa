"""Pictures for reports, as SVG."""
