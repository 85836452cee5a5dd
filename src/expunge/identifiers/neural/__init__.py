"""What needs torch and transformers: nothing here is imported until an identifier that uses it runs."""
