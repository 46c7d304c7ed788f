# docs/configuration.md -> eplbd.yaml(5): headings, paragraphs, code blocks and the tables of keys.
#   awk -v version=0.1.0 -f from_markdown.awk configuration.md
# SPDX-License-Identifier: Apache-2.0

# Markdown inside a line: `code` and links become bold and plain text; roff's own characters escaped.
function inline(text) {
  gsub(/\\/, "\\e", text)
  gsub(/-/, "\\-", text)
  while (match(text, /\[[^]]*\]\([^)]*\)/)) {
    link = substr(text, RSTART, RLENGTH)
    sub(/\]\(.*/, "", link)
    text = substr(text, 1, RSTART - 1) substr(link, 2) substr(text, RSTART + RLENGTH)
  }
  while (match(text, /`[^`]*`/))
    text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 1, RLENGTH - 2) "\\fP" \
      substr(text, RSTART + RLENGTH)
  sub(/^[.']/, "\\\\\\&&", text)
  return text
}

BEGIN {
  printf ".TH EPLBD.YAML 5 \"\" \"eplbd %s\" \"File Formats Manual\"\n", version
  print ".SH NAME\neplbd.yaml \\- configuration file of eplbd\n.SH DESCRIPTION"
}

/^```/ {
  code = !code
  print code ? ".PP\n.RS 4\n.nf" : ".fi\n.RE"
  next
}
code {
  gsub(/\\/, "\\e"); gsub(/-/, "\\-"); sub(/^[.']/, "\\\\\\&&"); print
  next
}
/^# / { next }
/^## / { print ".SH " toupper(inline(substr($0, 4))); next }
/^\|( key |-)/ { next }
/^\|/ {
  split($0, cell, / *\| */)
  value = inline(cell[3])
  if (value !~ /^\\fB/) value = "\\fI" value "\\fP"
  print ".TP\n" inline(cell[2]) " (" value ")\n" inline(cell[4])
  next
}
/^$/ { print ".PP"; next }
{ print inline($0) }

END {
  print ".SH FILES\n.TP\n.I /etc/eplbd/eplbd.yaml\nread by eplbd.service"
  print ".TP\n.I /etc/eplbd/NAME.yaml\nread by eplbd@NAME.service"
  print ".SH SEE ALSO\n.BR eplbd (8),\n.BR eplbctl (1)"
}
