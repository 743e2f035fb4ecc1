# Which requests of find_package this version answers: those for the same minor version while the
# major one is 0, later those for the same major one. The soname follows the same rule.
#
# The version of the crate; a test compares them.
set(PACKAGE_VERSION 0.1.0)

string(REGEX MATCH "^([0-9]+)\\.([0-9]+)" _trunkline_own "${PACKAGE_VERSION}")
if(CMAKE_MATCH_1 EQUAL 0)
    set(_trunkline_own "0.${CMAKE_MATCH_2}")
    set(_trunkline_asked "${PACKAGE_FIND_VERSION_MAJOR}.${PACKAGE_FIND_VERSION_MINOR}")
else()
    set(_trunkline_own "${CMAKE_MATCH_1}")
    set(_trunkline_asked "${PACKAGE_FIND_VERSION_MAJOR}")
endif()
if(_trunkline_own STREQUAL _trunkline_asked AND NOT PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION)
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
else()
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
endif()
unset(_trunkline_own)
unset(_trunkline_asked)
