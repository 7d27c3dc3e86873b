"""What any program needs of the machine that it runs on."""
