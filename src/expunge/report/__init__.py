"""Reports from run folders alone: one self-contained HTML page, terminal tables, coloured text. No torch, no model."""
