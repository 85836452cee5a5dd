"""Questions about methods that need models and judges together: each writes tables, and answers from the tables."""
