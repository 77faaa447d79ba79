"""What tools do when something goes wrong: every fault met by every tool, each pair in processes of its own."""
