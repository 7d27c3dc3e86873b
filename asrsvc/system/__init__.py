"""What any of our programs needs of the machine and of strangers' bytes, whatever it is for."""
