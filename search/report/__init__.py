"""What people look at: page, charts, terminal, dashboard, tracking."""
