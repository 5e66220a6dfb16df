"""One verb a function. These rooms own the transactions and the order of rows and bytes, and never import each other."""
