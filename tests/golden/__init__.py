"""What the program did before it was rebuilt, as files that tests compare with."""
