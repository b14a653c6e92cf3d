"""Training (Sec. III.C and IV.B): the losses, the loop, and the folder that a run leaves."""
