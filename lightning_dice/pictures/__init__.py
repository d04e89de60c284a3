"""What is drawn and tabulated of any run, whatever its classes; no torch in here."""
