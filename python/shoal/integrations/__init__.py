"""shoal for programs that are written against other libraries. Each module is imported by what offers it."""
