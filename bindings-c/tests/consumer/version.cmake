# Prints whether FILE, a package's version file, answers the request PACKAGE_FIND_VERSION.
include("${FILE}")
if(PACKAGE_VERSION_COMPATIBLE)
    message(yes)
else()
    message(no)
endif()
