"""Reports for people: page, charts, terminal, dashboard, tracking."""
