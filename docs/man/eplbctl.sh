#!/bin/sh
# eplbctl(1) from what eplbctl says of itself: eplbctl.sh PROGRAM VERSION > eplbctl.1
# SPDX-License-Identifier: Apache-2.0
set -eu
program=$1
version=$2

# Flags of one help text: "  --loads FILE REQUIRED   what it is", continued on deeper lines.
options() {
  "$@" --help | awk '
    function roff(text) { gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text); return text }
    /^[A-Z][A-Za-z ]*:$/ { in_options = /Options|Positionals/; next }
    !in_options || NF == 0 || /Print this help message/ { next }
    /^  [^ ]/ {
      line = substr($0, 3)
      at = match(line, /   */)
      name = at ? substr(line, 1, at - 1) : line
      text = at ? substr(line, at + RLENGTH) : ""
      printf ".TP\n\\fB%s\\fP\n%s\n", roff(name), roff(text)
      next
    }
    { sub(/^ +/, ""); print roff($0) }'
}

commands=$("$program" --help | awk '/^[A-Z]/ { on = /^Subcommands:/ } on && /^  [a-z]/ { print $1 }')

cat <<EOF
.TH EPLBCTL 1 "" "eplbd $version" "User Commands"
.SH NAME
eplbctl \\- show, steer and plan with the expert\\-parallelism load balancer
.SH SYNOPSIS
.B eplbctl
.I COMMAND
.RI [ OPTION ]...
.SH DESCRIPTION
Talks to a running
.BR eplbd (8)
over its control socket, which members of the group
.B eplbd
may use, and plans placements offline with the daemon's own code.
A daemon is found with
.BR \\-\\-socket ,
.B \\-\\-config
or
.BR \\-\\-deployment ;
without them at
.IR /run/eplbd/control.sock .
Every command that reads takes
.B \\-\\-json
for scripts, and every command
.BR \\-\\-help .
.SH OPTIONS
EOF
options "$program"
echo .SH COMMANDS
describe() {
  "$@" --help | awk 'NF { gsub(/-/, "\\-"); print; exit }'
}
for command in $commands; do
  echo ".SS $command"
  describe "$program" "$command"
  inner=$("$program" "$command" --help |
    awk '/^[A-Z]/ { on = /^Subcommands:/ } on && /^  [a-z]/ { print $1 }')
  options "$program" "$command"
  for word in $inner; do
    echo ".SS $command $word"
    describe "$program" "$command" "$word"
    options "$program" "$command" "$word"
  done
done
cat <<'EOF'
.SH EXIT STATUS
.TP
.B 0
Done;
.BR status :
healthy.
.TP
.B 1
Refused or failed, with the reason on standard error;
.BR status :
not healthy.
.TP
.B 2
The command line is wrong.
.SH FILES
.TP
.I /run/eplbd/control.sock\fR, \fI/run/eplbd/NAME/control.sock
Control sockets of eplbd.service and eplbd@NAME.service.
.SH SEE ALSO
.BR eplbd (8),
.BR eplbd.yaml (5)
EOF
