"""Multi-view testing: views, metrics, report and the run that ties them together."""
