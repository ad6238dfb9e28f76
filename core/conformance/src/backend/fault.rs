//! What a backend can get wrong, and the law that says so first.

macro_rules! faults {
    ($($(#[doc = $what:literal])+ $fault:ident => $law:ident,)*) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Fault {
            /// None at all.
            #[default]
            None,
            $($(#[doc = $what])+ $fault,)*
        }

        impl Fault {
            /// Every mistake, with the name of the first law that does not hold then.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$fault, stringify!($law)),)*];
        }
    };
}

faults! {
    /// An upload goes to the beginning of the buffer.
    UploadIgnoresOffset => uploads_come_back,
    /// A ticket sees what is written after it was taken.
    LateTicket => tickets_are_snapshots,
    /// Products after the first of a call are not computed.
    SecondJobDropped => product_jobs_are_independent,
    /// `β = 0` multiplies NaN.
    BetaZeroKeepsNan => products_with_beta_zero_overwrite_nan,
    /// The old content of a product's target is lost.
    BetaIgnored => products_match_the_oracle,
    /// A square operand is transposed.
    TransposeSwapped => products_match_the_oracle,
    /// An operand is read from the beginning of its buffer.
    RegionOffsetIgnored => products_match_the_oracle,
    /// Where products are added, the target's columns are taken to be packed.
    ColumnStepIgnored => products_match_the_oracle,
    /// A missing operand reads as 1.
    MissingReadsAsOne => maps_match_the_oracle,
    /// The gradient through ReLU passes where the output is 0.
    ReluGradientAtZero => maps_match_the_oracle,
    /// A fill is done after the product that follows it.
    FillOutOfOrder => calls_act_in_order,
    /// Sums go along the other axis of square matrices.
    ReduceOverTheWrongAxis => reductions_match_the_oracle,
    /// The factor is computed from the upper triangle.
    LowerAndUpperConfused => cholesky_factors_multiply_back,
    /// Whatever happened, the verdict is good.
    VerdictAlwaysGood => failed_factorisations_are_reported_alone,
    /// One matrix that is not positive definite fails all of its call.
    FailurePoisonsOthers => failed_factorisations_are_reported_alone,
    /// The second half of a solution is forgotten.
    SolvesOnlyForwards => solutions_solve,
    /// The upper triangle of a symmetric product is summed on its own.
    TrianglesDiffer => symmetric_products_are_symmetric,
    /// Eigenvalues are left in any order.
    EigenvaluesUnsorted => eigenvalues_ascend,
    /// Eigenvectors are not normalised.
    EigenvectorsTooLong => eigenvectors_are_orthonormal,
    /// Eigenvectors are in rows.
    EigenvectorsInRows => eigenpairs_multiply_back,
    /// Eigenvalues of NaN are zeros.
    EigenvaluesHideNan => eigenvalues_of_nan_are_nan,
    /// Patches are taken without gaps.
    DilationIgnored => unfolding_matches_the_oracle,
    /// Vertical and horizontal stride are exchanged.
    StrideAxesSwapped => unfolding_matches_the_oracle,
    /// Patches that overlap overwrite each other.
    FoldOverwrites => folding_matches_the_oracle,
    /// The statistic of a convolution's input is left out.
    StatisticForgotten => convolutions_match_the_oracle,
    /// The bias of a convolution has no gradient.
    BiasGradientForgotten => convolution_gradients_match_the_oracle,
    /// The largest of negative numbers is 0.
    MaximumStartsAtZero => pooling_matches_the_oracle,
    /// The gradient goes to the last of equal maxima.
    LastOfEqualMaxima => pooling_gradients_match_the_oracle,
    /// The gradient of a mean ends where the inputs that are handed over with it do.
    MeanEndsWithInputs => pooling_gradients_match_the_oracle,
    /// The running variance is divided by n instead of n − 1.
    RunningVarianceBiased => batch_norm_matches_the_oracle,
    /// A gradient through batch normalisation takes the statistics as constants.
    BatchStatisticsConstant => batch_norm_gradients_match_the_oracle,
    /// EvoNorm's variance is that of the whole sample.
    EvoNormWithoutGroups => evo_norm_matches_the_oracle,
    /// Labels are not smoothed.
    SmoothingIgnored => cross_entropy_matches_the_oracle,
    /// The last class is never drawn.
    LastClassNeverDrawn => sampled_labels_match_the_oracle,
    /// The shortcut's channels are padded at the back only.
    ShortcutPadsBehind => shortcuts_match_the_oracle,
    /// Sums are made in an order that changes from call to call.
    SumOrderVaries => reruns_are_bit_identical,
    /// After `sync`, sums are made in another order.
    SyncChangesOrder => synchronising_changes_no_bit,
    /// An empty list of jobs is taken for a mistake.
    EmptyListPanics => empty_work_does_nothing,
    /// Products of shapes that do not fit are skipped.
    WrongShapesSkipped => wrong_shapes_panic,
    /// Products are not counted.
    FlopsNotCounted => work_is_counted,
}
