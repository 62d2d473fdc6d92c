"""Progress of calls, and the way from results to their figures and pages."""
