"""Who a caller from outside is, by what it shows."""
