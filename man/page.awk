# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes a manual page: awk -v page=imgtool-check -v section=1 -v version=V -f page.awk HELP PAGE.1.in
#
# HELP is what the program itself prints (--help, and -o help of each format),
# so that a page cannot name an option that does not exist, or forget one.
# PAGE.1.in is roff written by hand, in which a line of these is replaced:
#   @synopsis          NAME and SYNOPSIS
#   @options           OPTIONS, each with its words of the help text
#   @examples          EXAMPLES of the help text
#   @commands          the list of imgtool's commands
#   @words             the list of imgfs's -o words
#   @create-options F  what `imgtool create -f F -o help` lists
#   @see PAGE...       SEE ALSO
# and which may say more of an option, anywhere in the file:
#   @detail -r         (or a word of -o, or F.NAME for an option of format F)
#   roff
#   @end
# A detail of an option that does not exist is an error.

function die(words) {
	print "page.awk: " FILENAME ": " words > "/dev/stderr"
	failed = 1
	exit 1
}
function esc(text) {
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	if (text ~ /^[.']/)
		text = "\\&" text
	return text
}
# Words of the help as a sentence. What begins with name=value is not one.
function sentence(text) {
	if (text !~ /^[^ ]*=/)
		text = toupper(substr(text, 1, 1)) substr(text, 2)
	return esc(text ~ /\.$/ ? text : text ".")
}
# The argument of an option: CAPITALS are to be replaced, other words are literal.
function argument(text,    n, i, part, out) {
	n = split(text, part, "|")
	for (i = 1; i <= n; i++)
		out = out (i > 1 ? "|" : "") (part[i] ~ /[a-z]/ ? "\\fB" : "\\fI") esc(part[i]) "\\fR"
	return out
}
# One spelling, "-T CACHE" or "--output=human|json".
function spelling(text,    at) {
	at = match(text, /[ =]/)
	if (!at)
		return "\\fB" esc(text) "\\fR"
	return "\\fB" esc(substr(text, 1, at - 1)) "\\fR" substr(text, at, 1) argument(substr(text, at + 1))
}
function add_option(line,    left, n, i, part, name) {
	sub(/^ +/, "", line)
	if (match(line, /^(-[^ ,]+, )?--[^ =]+=[^ ]+ /) || match(line, /   *[^ ]/))
		left = RSTART == 1 ? substr(line, 1, RLENGTH - 1) : substr(line, 1, RSTART - 1)
	else
		left = line
	text[++options] = sentence(substr(line, length(left) + 1 + match(substr(line, length(left) + 1), /[^ ]/) - 1))
	if (left == line)
		text[options] = ""
	n = split(left, part, ", ")
	for (i = 1; i <= n; i++) {
		name = part[i]
		sub(/[ =].*/, "", name)
		number[name] = options
		head[options] = head[options] (i > 1 ? ", " : "") spelling(part[i])
		brief[options] = i == 1 ? spelling(part[i]) : brief[options]
	}
	# "-f, --format=FMT": the synopsis has the letter with the argument.
	if (n == 2 && match(part[2], /[ =].*/))
		brief[options] = brief[options] " " argument(substr(part[2], RSTART + 1))
}
function add_row(list, name, words) {
	rows[list]++
	row_name[list, rows[list]] = name
	row_text[list, rows[list]] = sentence(words)
	known[list, name] = 1
}

# --- what the program prints

FNR == 1 { file++ }
file == 1 && /^usage: / && !usage { usage = $0; summary_next = 1; next }
file == 1 && summary_next { summary = $0; summary_next = 0 }
file == 1 && /^Examples:/ { mode = "examples"; next }
file == 1 && /^Commands \(/ { mode = "commands"; next }
file == 1 && /^Supported .* options:/ { mode = "create-options " $2; next }
file == 1 && /^[^ ]/ { mode = "" }
file == 1 && /^$/ { mode = "" }
file == 1 && mode == "examples" { examples[++n_examples] = substr($0, 3); next }
file == 1 && mode == "commands" {
	words = $0
	sub(/^ +[^ ]+ +/, "", words)
	add_row("commands", $1, words)
	next
}
file == 1 && mode ~ /^create-options/ && match($0, / +- /) {
	words = substr($0, RSTART + RLENGTH)
	name = substr($0, 3, RSTART - 3)
	sub(/ +$/, "", name)
	add_row(mode, name, words)
	next
}
file == 1 && /^ +'-/ { # imgtool --help quotes them: '-h', '--help'
	sub(/'/, "")
	sub(/', '/, ", ")
	sub(/'/, " ")
	add_option($0)
	next
}
file == 1 && /^  -o OPTION\[/ { mode = "words"; sub(/:$/, "") }
file == 1 && /^ +-/ { add_option($0); next }
file == 1 && mode == "words" {
	words = $0
	sub(/^ +[^ ]+ +/, "", words)
	add_row("words", $1, words)
	next
}

# --- the page

file == 2 && /^@detail / {
	in_detail = $2
	found = $2 in number || ("words", $2) in known
	at = index($2, ".")
	if (at)
		for (i in known)
			if (index(i, "create-options " substr($2, 1, at - 1) SUBSEP substr($2, at + 1) "=") == 1)
				found = 1
	if (!found)
		die("no such option: " $2)
	next
}
file == 2 && /^@end$/ { in_detail = ""; next }
file == 2 && in_detail != "" { detail[in_detail] = detail[in_detail] $0 "\n"; next }
file == 2 { line[++lines] = $0 }

function print_detail(key) {
	printf "%s", detail[key]
}
function print_options(    i, name) {
	print ".SH OPTIONS"
	for (i = 1; i <= options; i++) {
		print ".TP"
		print head[i]
		if (text[i] != "")
			print text[i]
		for (name in number)
			if (number[name] == i && name in detail)
				print_detail(name)
	}
}
function print_synopsis(    words, n, i, part, operands, program, dashes) {
	operands = usage
	sub(/^usage: /, "", operands)
	sub(/\[[^]]*options\]/, "@", operands)
	program = substr(operands, 1, index(operands, " @") - 1)
	operands = substr(operands, index(operands, "@") + 2)
	print ".SH NAME"
	print esc(page) " \\- " (short != "" ? short : esc(tolower(substr(summary, 1, 1)) substr(summary, 2)))
	print ".SH SYNOPSIS"
	print ".nh"
	print ".ad l"
	print ".B " esc(program)
	for (i = 1; i <= options; i++) {
		words = brief[i]
		gsub(/ /, "\\ ", words)
		print "[" words "]"
	}
	n = split(operands, part, " ")
	for (i = 1; i <= n; i++) {
		words = part[i]
		gsub(/[A-Z][A-Z0-9]*/, "\\fI&\\fR", words)
		print (words ~ /^\\f/ ? "" : "\\&") words
	}
	print ".ad b"
	print ".hy"
}
function print_rows(list, bold_suffix,    i, name, bare, format) {
	format = list
	sub(/^create-options /, "", format)
	for (i = 1; i <= rows[list]; i++) {
		name = bare = row_name[list, i]
		print ".TP"
		if (list == "commands") {
			print ".BR " esc(page "-" name) " (1)"
		} else {
			sub(/=.*/, "", bare)
			print "\\fB" esc(bare) "\\fR" esc(substr(name, length(bare) + 1))
		}
		print row_text[list, i]
		print_detail(name)
		if (list != "words")
			print_detail(format "." bare)
	}
}
function print_see(words,    n, i, part, at) {
	print ".SH SEE ALSO"
	n = split(words, part, " ")
	for (i = 1; i <= n; i++) {
		at = index(part[i], "(")
		print ".BR " esc(substr(part[i], 1, at - 1)) " " substr(part[i], at) (i < n ? "," : "")
	}
}

END {
	if (failed)
		exit 1
	print line[1]
	print ".\\\" Made by man/page.awk of the program's own help and of man/" page "." section ".in"
	print ".TH " esc(toupper(page)) " " section " \"\" \"imgfs " version "\" \"imgfs\""
	for (k = 2; k <= lines; k++) {
		if (line[k] ~ /^@short /)
			short = substr(line[k], 8)
		else if (line[k] == "@synopsis")
			print_synopsis()
		else if (line[k] == "@options")
			print_options()
		else if (line[k] == "@commands" || line[k] == "@words" || line[k] ~ /^@create-options /)
			print_rows(substr(line[k], 2))
		else if (line[k] == "@examples") {
			print ".SH EXAMPLES"
			print ".nf"
			for (k2 = 1; k2 <= n_examples; k2++)
				print esc(examples[k2])
			print ".fi"
		} else if (line[k] ~ /^@see /)
			print_see(substr(line[k], 6))
		else if (line[k] ~ /^@/) {
			print "page.awk: " FILENAME ": what is " line[k] "?" > "/dev/stderr"
			exit 1
		} else
			print line[k]
	}
}
