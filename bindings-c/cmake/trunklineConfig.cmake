# Targets of an installed libtrunkline:
#
#     find_package(trunkline 0.1 REQUIRED)                          # what there is
#     find_package(trunkline 0.1 REQUIRED COMPONENTS shared static) # both, or an error
#
#     trunkline::trunkline    the shared library
#     trunkline::static       the static library, with the system's libraries that it needs
#
# Everything is found from the place of this file, <prefix>/share/cmake/trunkline, so that a prefix
# can be moved. Not for Windows, where the linker wants other files.

get_filename_component(_trunkline_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

# The folder is lib, lib64, or with Debian's multiarch lib/<triplet>.
unset(_trunkline_lib)
foreach(_trunkline_dir "lib/${CMAKE_LIBRARY_ARCHITECTURE}" lib64 lib)
    if(NOT _trunkline_lib AND EXISTS "${_trunkline_prefix}/${_trunkline_dir}/pkgconfig/trunkline.pc")
        get_filename_component(_trunkline_lib "${_trunkline_prefix}/${_trunkline_dir}" ABSOLUTE)
    endif()
endforeach()

set(_trunkline_so "${_trunkline_lib}/libtrunkline${CMAKE_SHARED_LIBRARY_SUFFIX}")
if(EXISTS "${_trunkline_so}")
    set(trunkline_shared_FOUND TRUE)
    if(NOT TARGET trunkline::trunkline)
        add_library(trunkline::trunkline SHARED IMPORTED)
        set_target_properties(trunkline::trunkline PROPERTIES
            IMPORTED_LOCATION "${_trunkline_so}"
            INTERFACE_INCLUDE_DIRECTORIES "${_trunkline_prefix}/include")
    endif()
endif()

set(_trunkline_a "${_trunkline_lib}/libtrunkline.a")
if(EXISTS "${_trunkline_a}")
    set(trunkline_static_FOUND TRUE)
    if(NOT TARGET trunkline::static)
        # What it needs besides itself is said in one place, the file of pkg-config.
        file(STRINGS "${_trunkline_lib}/pkgconfig/trunkline.pc" _trunkline_needs
            REGEX "^Libs\\.private:")
        string(REGEX REPLACE "^Libs\\.private:" "" _trunkline_needs "${_trunkline_needs}")
        separate_arguments(_trunkline_needs UNIX_COMMAND "${_trunkline_needs}")
        add_library(trunkline::static STATIC IMPORTED)
        set_target_properties(trunkline::static PROPERTIES
            IMPORTED_LOCATION "${_trunkline_a}"
            INTERFACE_INCLUDE_DIRECTORIES "${_trunkline_prefix}/include"
            INTERFACE_LINK_LIBRARIES "${_trunkline_needs}")
    endif()
endif()

if(NOT trunkline_shared_FOUND AND NOT trunkline_static_FOUND)
    set(trunkline_FOUND FALSE)
    set(trunkline_NOT_FOUND_MESSAGE "no libtrunkline with its trunkline.pc in ${_trunkline_prefix}")
endif()
foreach(_trunkline_component IN LISTS trunkline_FIND_COMPONENTS)
    if(trunkline_FIND_REQUIRED_${_trunkline_component}
            AND NOT trunkline_${_trunkline_component}_FOUND)
        set(trunkline_FOUND FALSE)
        set(trunkline_NOT_FOUND_MESSAGE
            "no ${_trunkline_component} libtrunkline in ${_trunkline_prefix}")
    endif()
endforeach()

unset(_trunkline_prefix)
unset(_trunkline_lib)
unset(_trunkline_dir)
unset(_trunkline_so)
unset(_trunkline_a)
unset(_trunkline_needs)
unset(_trunkline_component)
