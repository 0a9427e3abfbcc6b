"""What nodes tell on `/diagnostics`, once a second: levels, words for people, numbers for tools."""
