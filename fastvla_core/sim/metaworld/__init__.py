"""Meta-World's fifty tasks, beside the table-top's; the package is imported when one is made."""
