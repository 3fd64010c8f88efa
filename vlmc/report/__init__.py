"""Charts for reports, as SVG."""
