"""Studies that no result depends on: simulations and measurements of the suite itself."""
