"""What a pool tells of its work: where time went, a trace of every task, and why it was not faster."""
