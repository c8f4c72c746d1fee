"""What environments can stand on: one module for each driver."""
