"""fish's script: a template of string.Template, in which $$ is a dollar sign."""

CASE = "        case {name}\n            printf '%s\\n' {words}"
OR = " "
SCRIPT = r"""# Completion of recaption for fish, made by `recaption completion fish`.

function __recaption_words # the values of a key or group
    switch $$argv[1]
$choices
    end
end

function __recaption_options
    switch $$argv[1]
$options
    end
end

function __recaption_directory # the one of a user's own presets
    set -l previous ""
    for word in $$argv
        switch $$word
            case '--config-dir=*'
                string replace -- --config-dir= "" $$word
        end
        if contains -- "$$previous" --config-dir -cd
            echo $$word
        end
        set previous $$word
    end
end

function __recaption
    set -l all (commandline -opc)
    set -l typed (commandline -ct)
    set -l command $$all[2]
    if test (count $$all) -lt 2
        printf '%s\n' $commands --help --version
    else if string match -q -- '-*' $$typed
        __recaption_options $$command
    else if test "$$command" = completion
        printf '%s\n' $shells
    else if contains -- $$command $keyed
        if not string match -q -- '*=*' $$typed
            contains -- "$$command$$typed" $placed; and return # a folder
            printf '%s\n' $keys
            return
        end
        set -l key (string split -m 1 = -- $$typed)[1]
        set -l head (string replace -r -- '[^=,]*$$' "" $$typed) # a sweep's further value, too
        set -l found (__recaption_words $$key)
        set -l directory (__recaption_directory $$all | string replace -r '^~/' "$$HOME/")
        if test -n "$$directory"; and contains -- $$key $groups
            set -l files $$directory/$$key/*.yaml # set takes a glob without a match
            set found $$found (string replace -r '.*/(.*)\.yaml$$' '$$1' $$files)
        end
        for word in $$found
            echo $$head$$word
        end
    end
end

# Files are offered only where there are no words.
complete -c recaption -n 'count (__recaption) >/dev/null' -f -a '(__recaption)'
"""
