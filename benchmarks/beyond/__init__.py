"""What is built on the transforms, beside what one would write without it, and beside its peers."""
