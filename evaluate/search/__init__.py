"""One sentence over the simulated link, at the command line and on a local page."""
