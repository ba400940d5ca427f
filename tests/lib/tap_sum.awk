# One TAP file -> "passed failed skipped", then one line "skip REASON" for each skip and
# "bad WHY" for what is wrong with the file itself. RC is the exit status of its program.
/^ok / || /^ok$/ {
    n++
    if (match($0, /# *[Ss][Kk][Ii][Pp]/)) {
        skipped++
        reason = substr($0, RSTART + RLENGTH)
        sub(/^[^ ]* */, "", reason)
        reasons[skipped] = reason
    } else {
        passed++
    }
}
/^not ok/ { n++; failed++ }
/^1\.\.[0-9]+/ {
    planned = 1
    plan = substr($1, 4) + 0
    if (plan == 0 && match($0, /# *[Ss][Kk][Ii][Pp]/)) {
        skipped++
        n_all = 1
        reason = substr($0, RSTART + RLENGTH)
        sub(/^[^ ]* */, "", reason)
        reasons[skipped] = reason
    }
}
/^Bail out!/ { bad["it bailed out: " $0] }
END {
    if (RC == 124 || RC == 137)
        bad["it ran into its timeout"]
    if (!planned)
        bad["it ended without a plan, exit status " RC]
    else if (!n_all && plan != n)
        bad["it planned " plan " tests and ran " n]
    if (RC != 0 && failed == 0 && planned && RC != 124 && RC != 137)
        bad["exit status " RC " although no test failed"]
    extra = 0
    for (b in bad)
        extra++
    printf "%d %d %d\n", passed, failed + extra, skipped
    for (i = 1; i <= skipped; i++)
        print "skip " reasons[i]
    for (b in bad)
        print "bad " b
}
