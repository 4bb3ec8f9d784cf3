# SPDX-License-Identifier: LGPL-2.1-or-later
# fish completion of imgfs. The words of -o are those that `imgfs --help` names.

function __imgfs_words
	set -l front (commandline -ct | string replace -rf '^(.*,).*$' '$1')
	imgfs --help 2>/dev/null | string replace -rf '^      ([a-z_]+=?) +(.*)$' "$front\$1\t\$2"
end

complete -c imgfs -s F -l format -x -a 'raw qcow2' -d 'format of the image'
complete -c imgfs -s f -l foreground -d 'stay in the foreground'
complete -c imgfs -s d -l debug -d 'tell each request'
complete -c imgfs -s s -l single -d 'one loop only'
complete -c imgfs -l pidfile -r -F -d 'write the process number'
complete -c imgfs -s h -l help -d 'explain all options'
complete -c imgfs -s V -l version -d 'print versions'
complete -c imgfs -s o -l options -x -a '(__imgfs_words)' -d 'mount options'
