"""What people see: progress, results and errors, and foreign text shown so that nothing in it can act."""
