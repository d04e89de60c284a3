"""The paper's table and figures, drawn from a run's files; no torch in here."""
