//! Enums that know all their variants.

/// Defines an enum with `ALL`, the list of its variants, which cannot lack one.
macro_rules! with_all {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$of:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$of])* $variant),+
        }

        impl $name {
            /// All variants, in the order of their definition.
            $vis const ALL: &'static [$name] = &[$($name::$variant),+];
        }
    };
}
pub(crate) use with_all;
