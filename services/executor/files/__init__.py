"""Files of an environment: its agent opens them inside, the executor moves the bytes."""
