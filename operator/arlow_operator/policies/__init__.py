"""One decision a file. Pure: a situation goes in, a decision or None comes out."""
