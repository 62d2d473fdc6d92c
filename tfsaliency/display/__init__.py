"""What people see of a run and its results: progress, and the way to figures and pages."""
